"""The benchmark harness: grid -> runs -> dispatch -> records -> tables."""
