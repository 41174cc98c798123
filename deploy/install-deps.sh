#!/usr/bin/env bash
# Installs the Debian 12 packages that Tessera is built and tested with. Safe to run again; quick when all are there.
#
#   deploy/install-deps.sh [--check] [build|test|optional]...
#
# Groups: build (compilers and libraries), test (clang with libFuzzer, shells that read completion scripts), optional
# (clang-format, clang-tidy).
# Without a group: build and test. --check installs nothing; it lists what is missing and fails if anything is.
# Installing needs root: run as root, or as a user who may use sudo.
set -euo pipefail

build=(build-essential cmake ninja-build ccache lld
       libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libabsl-dev
       nlohmann-json3-dev prometheus-cpp-dev libyaml-cpp-dev libpcre2-dev libicu-dev
       libsentencepiece-dev libssl-dev libboost1.81-dev libcli11-dev libspdlog-dev zlib1g-dev
       libgtest-dev python3 python3-pip python3-venv ca-certificates)
test=(clang-14 libclang-rt-14-dev git zsh fish)
optional=(clang-format-14 clang-tidy-14)

usage() { sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; }

check_only=no
groups=()
for argument in "$@"; do
  case $argument in
    --check) check_only=yes ;;
    build | test | optional) groups+=("$argument") ;;
    -h | --help) usage; exit 0 ;;
    *) echo "install-deps: unknown argument '$argument'" >&2; usage >&2; exit 2 ;;
  esac
done
[ ${#groups[@]} -gt 0 ] || groups=(build test)

if ! command -v dpkg-query >/dev/null; then
  echo "install-deps: this system has no dpkg; the package names below are Debian 12's." >&2
  printf '  %s\n' "${build[@]}" "${test[@]}" >&2
  exit 1
fi

wanted=()
for group in "${groups[@]}"; do
  declare -n packages=$group
  wanted+=("${packages[@]}")
done
# One query for all: dpkg-query fails if any is unknown, but still prints those that it knows.
installed=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "${wanted[@]}" 2>/dev/null |
            awk '$2 == "ii" { print $1 }' || true)
missing=()
for package in "${wanted[@]}"; do
  grep -qxF "$package" <<<"$installed" || missing+=("$package")
done

if [ ${#missing[@]} -eq 0 ]; then
  echo "install-deps: all ${#wanted[@]} packages of '${groups[*]}' are installed"
  exit 0
fi
if [ "$check_only" = yes ]; then
  echo "install-deps: missing: ${missing[*]}" >&2
  echo "  fix: run deploy/install-deps.sh ${groups[*]} (as root, or with sudo)" >&2
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install-deps: ${#missing[@]} packages are missing, and installing them needs root." >&2
    echo "  missing: ${missing[*]}" >&2
    echo "  fix: as root, run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "install-deps: installing ${missing[*]}"
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }
if ! apt install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
  # The package lists may be older than the mirror.
  apt update -qq
  apt install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
echo "install-deps: done"
