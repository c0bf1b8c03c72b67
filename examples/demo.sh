#!/usr/bin/env bash
# From the bundled index to verdicts on real sentences; needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export ADAPTERHUB_OFFLINE=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

if [[ -t 1 && -z "${NO_COLOR:-}" ]]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi

# Prints a command as it would be typed, then runs it.
run() {
  local word line='$'
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./=-]+$ ]]; then line+=" $word"; else line+=" \"$word\""; fi
  done
  printf '\n%s%s%s\n' "$bold" "$line" "$plain"
  "$@"
}

say() { printf '\n%s\n' "$*"; }

say "Fetch an adapter from the index that comes with the package."
run adapterhub pull sst2-bert

say "What is known about it."
run adapterhub show sst2-bert

say "Ask it."
run adapterhub run sst2-bert \
  "A gorgeous, witty, seductive movie." \
  "A dull, lifeless mess; I want my money back." \
  "The actors do what they can, but the script gives them nothing to do."

say "Two adapters on one loaded model, and from one to the other."
run python examples/swap.py

say "Several adapters under one name: pulled with all its parts, shown as a tree, asked."
run adapterhub pull moods-bert
run adapterhub show moods-bert
run adapterhub run moods-bert \
  "A gorgeous, witty, seductive movie." \
  "The battery died after two days." \
  "The council will vote on the budget on Tuesday."

say "And put together without saving, with other weights."
run adapterhub run "average(tweets-bert, editorials-bert, weights=[3, 1])" --head tweets-bert \
  "the battery died again :("

say "Replay the inputs and answers that each artifact carries."
run adapterhub verify sst2-bert --run
run adapterhub verify moods-bert --run
