#!/usr/bin/env bash
# Installs the browser that tests/test_page_browser.py drives, on Debian and its kin. Exit status 1
# where it cannot.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
command -v apt-get >/dev/null || { echo "install_browser.sh: no apt-get here" >&2; exit 1; }
SUDO=; [ "$(id -u)" = 0 ] || SUDO="sudo -n"
apt() { $SUDO env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=180 "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt update && apt install -y --no-install-recommends chromium; } >"$log" 2>&1 || { tail -n 5 "$log" >&2; exit 1; }
