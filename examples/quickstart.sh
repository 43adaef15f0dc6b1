#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to a trained model: installs what is missing, builds, trains for three minutes, and shows where the model
# thinks longest. Run it as often as you like: what is built is used again, and every run trains into a new folder.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: examples/quickstart.sh [--minutes N] [--data FILE] [--out DIR] [--threads N] [--prompt TEXT]
  --minutes N    how long to train (default 3)
  --data FILE    train on this text instead of the Jargon File
  --out DIR      where the model goes (default: build/quickstart/run-1, run-2, ... the first that is free)
  --threads N    processor threads (default: all)
  --prompt TEXT  what the generated paragraph begins with
TEXT
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build/quickstart
DICTIONARY=/usr/share/dictd/jargon.dict.dz
TOOLS=(g++ cmake make libcli11-dev nlohmann-json3-dev)
LEAST_BYTES=10000  # of a text: less leaves nothing to hold out
minutes=3 data='' out='' threads=0 prompt='A hacker is'

die() { echo "quickstart: $*" >&2; exit 2; }
say() { printf '\n== %s\n' "$*"; }

parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --minutes | --data | --out | --threads | --prompt) [ $# -ge 2 ] || die "$1 needs a value (see --help)" ;;
      *) die "unknown argument $1 (see --help)" ;;
    esac
    case $1 in
      --minutes) minutes=$2 ;;
      --data) data=$2; check_data ;;
      --out) out=$2; check_out ;;
      --threads) threads=$2 ;;
      --prompt) prompt=$2 ;;
    esac
    shift 2
  done
  [[ $minutes =~ ^[0-9]+([.][0-9]+)?$ && $minutes =~ [1-9] ]] ||
    die "--minutes: expected a number above 0, got '$minutes'"
  [[ $threads =~ ^[0-9]+$ ]] || die "--threads: expected a whole number, got '$threads'"
  printf %s "$prompt" | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1 || [ $? -eq 127 ] || die "--prompt: not valid UTF-8"
}

# What would otherwise be refused after the build.
check_data() {
  [ -e "$data" ] || die "--data: no such file: '$data'"
  [ -f "$data" ] || die "--data: expected a file of text, got $data"
  [ -r "$data" ] || die "--data: cannot read $data"
  local bytes
  bytes=$(wc -c <"$data")
  [ "$bytes" -ge "$LEAST_BYTES" ] || die "--data: expected at least $LEAST_BYTES bytes of text, got $bytes in $data"
}

check_out() {
  [ -n "$out" ] || die "--out: expected a folder, got an empty name"
  [ ! -e "$out" ] || [ -d "$out" ] || die "--out: $out is there and is not a folder"
  [ -z "$(ls -A "$out" 2>/dev/null)" ] || die "--out: there are files in $out; give a new folder"
}

# Prints which of the packages $@ are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

# Runs apt-get with $@ as root; fails where nobody may.
as_root_apt() {
  if [ "$(id -u)" -eq 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get "$@" >/dev/null </dev/null
  elif command -v sudo >/dev/null; then
    sudo env DEBIAN_FRONTEND=noninteractive apt-get "$@" >/dev/null
  else
    return 1
  fi
}

install_missing() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "This is not a Debian-like system, so nothing is installed here. Needed: a C++20 compiler and CMake 3.24;"
    echo "CLI11 2.1 and nlohmann/json 3.10 are downloaded by CMake where they are missing."
    command -v cmake >/dev/null || die "cmake is not installed"
    return
  fi
  local missing text=()
  [ -n "$data" ] || [ -r "$DICTIONARY" ] || text=(dict-jargon)
  mapfile -t missing < <(missing_packages "${TOOLS[@]}")
  [ $((${#missing[@]} + ${#text[@]})) -gt 0 ] || return 0
  say "Installing ${missing[*]} ${text[*]}"
  as_root_apt update -qq || echo "(apt-get update failed; going on with the package lists that are here)"
  if [ ${#missing[@]} -gt 0 ] && ! as_root_apt install -y -qq --no-install-recommends "${missing[@]}"; then
    die "cannot install ${missing[*]}; as root: apt-get install ${missing[*]}"
  fi
  if [ ${#text[@]} -gt 0 ] && ! as_root_apt install -y -qq --no-install-recommends "${text[@]}"; then
    echo "(the Jargon File, package dict-jargon, cannot be had here)"
  fi
}

build() {
  say "Building in build/quickstart"
  cmake -S "$ROOT" -B "$BUILD" -DCMAKE_BUILD_TYPE=Release -DMOR_NATIVE=ON -DMOR_ENABLE_CUDA=OFF \
    -DMOR_BUILD_TESTS=OFF -DMOR_BUILD_BENCH=OFF -DMOR_BUILD_EXAMPLES=ON -DMOR_BUILD_SERVER=OFF >"$BUILD.log" 2>&1 ||
    { tail -n 20 "$BUILD.log" >&2; die "cmake failed; the whole log is $BUILD.log"; }
  cmake --build "$BUILD" --parallel "$(nproc)" \
    --target mor_example_train mor_example_generate mor_example_evaluate
}

# The dictionary's entries as prose: without header, pronunciations and cross-reference braces, one line a paragraph.
jargon_text() {
  gzip -dc <"$DICTIONARY" | awk '
    /^\(TM\)$/ { begun = 1 }
    !begun { next }
    /^ [^ ]/ { next }
    {
      gsub(/[{}]/, "")
      indented = /^    [^ ]/
      if (indented) {
        sub(/^ +/, "")
        printf "%s%s", (open ? " " : ""), $0
      } else {
        printf "%s%s\n", (open ? "\n" : ""), $0
      }
      open = indented
    }
    END { if (open) print "" }' | sed 's/“ /“/g; s/  */ /g'
}

prepare_text() {
  if [ -n "$data" ]; then
    return
  fi
  data=$BUILD/text.txt
  if [ -s "$data" ]; then
    return
  fi
  if [ -r "$DICTIONARY" ]; then
    say "Text: the Jargon File (package dict-jargon, public domain)"
    jargon_text >"$data.new"
  else
    say "Text: the Jargon File is not here, so the licences and documents on this machine must do"
    # The links among the licences are names for the same files.
    find /usr/share/common-licenses "$ROOT" -type f \( -path '/usr/share/common-licenses/*' -o -name '*.md' \) \
      -not -path '*/build/*' -exec cat {} + >"$data.new" 2>/dev/null || true
  fi
  [ -s "$data.new" ] || { rm -f "$data.new"; die "found no text here; give one: --data FILE"; }
  mv "$data.new" "$data"
}

choose_folder() {
  if [ -n "$out" ]; then
    return
  fi
  local number=1
  while [ -e "$BUILD/run-$number" ]; do number=$((number + 1)); done
  out=$BUILD/run-$number
}

main() {
  parse_arguments "$@"
  mkdir -p "$BUILD"
  install_missing
  build
  prepare_text
  choose_folder
  local programs=$BUILD/examples

  say "Training for $minutes minutes on $(wc -c <"$data") bytes of text"
  "$programs/train" --preset quickstart --data "$data" --out "$out" --minutes "$minutes" --threads "$threads"

  say "Text by the model; in a terminal the colour is the number of recursions that each token took"
  "$programs/generate" --model "$out" --prompt "$prompt" --max-tokens 110 --temperature 0.7 --top-p 0.95 --seed 4 \
    --depths --depths-html "$out/depths.html" --threads "$threads"

  say "Look at"
  echo "$out/report.html   the training: losses, learning rate, speed, depths"
  echo "$out/depths.html   the text above as a page"
  printf 'and try: %q --model %q --prompt TEXT --depths\n' "$programs/generate" "$out"
}

main "$@"
