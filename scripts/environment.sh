# Sourced by scripts/train and scripts/test: makes .venv in the project's root, once.
#
#   ready run     bigmodel-train and what it needs
#   ready test    the test tools as well
#
# A stamp, written last, says that an installation is whole and what it was made from. With the same
# pyproject.toml and pins nothing is installed again; where they changed, pip brings .venv up to date;
# where there is no stamp, because pip was interrupted, .venv is made anew.

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
pins="$root/scripts/constraints.txt"

ready() { # run or test
  local key
  key="$root $(cat "$root/pyproject.toml" "$pins" | cksum)" # the root, as a venv cannot be moved
  if is_ready "$1" "$key"; then return; fi
  (
    # One installation at a time: whoever had to wait finds it done.
    if command -v flock >/dev/null; then flock 9 || true; fi
    is_ready "$1" "$key" || set_up "$1" "$key"
  ) 9<"$pins"
}

is_ready() { # run or test, key
  [[ -x "$venv/bin/python" && -f "$venv/ready-$1" && "$(<"$venv/ready-$1")" == "$2" ]]
}

set_up() { # run or test, key
  local what="$1" key="$2" python
  log="$(mktemp)" # not local: the trap runs after this function
  trap 'rm -f "$log"' EXIT
  if is_whole; then
    echo "Bringing .venv up to date…" >&2
  else
    python="$(find_python)"
    echo "Setting up .venv with $("$python" --version) (once; a few minutes)…" >&2
    rm -rf "$venv"
    logged "$python" -m venv "$venv"
  fi
  if [[ -f "$venv/ready-test" ]]; then what=test; fi
  rm -f "$venv"/ready-*
  # Torch first and by its exact version: a looser request might fetch another build of it.
  pip_install "$(grep '^torch==' "$pins")"
  # shellcheck disable=SC2046 # one requirement a word
  pip_install hatchling editables $(requirements "$what")
  pip_install --no-deps --no-build-isolation --editable "$root"
  if [[ "$what" == test ]]; then echo "$key" >"$venv/ready-test"; fi
  echo "$key" >"$venv/ready-run"
}

is_whole() { # an installation that was finished, in this very folder
  [[ -x "$venv/bin/python" && -f "$venv/ready-run" && "$(<"$venv/ready-run")" == "$root "* ]]
}

find_python() {
  local name
  for name in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "No Python 3.11 or later with its venv module was found${PYTHON:+ as PYTHON=$PYTHON}. Install one" >&2
  echo "(on Debian and Ubuntu: python3 and python3-venv), or name it: PYTHON=/path/to/python3 $0" >&2
  return 1
}

pip_install() {
  logged "$venv/bin/python" -m pip install \
    --quiet --disable-pip-version-check --no-input --constraint "$pins" "$@"
}

logged() { # runs a command quietly, and shows what it said where it fails
  if ! "$@" >>"$log" 2>&1; then
    cat "$log" >&2
    echo "Setting up .venv failed, for the reason above. The next start tries again." >&2
    exit 1
  fi
}

requirements() { # run or test: what pyproject.toml asks for, one a line
  "$venv/bin/python" - "$root/pyproject.toml" "$1" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
wanted = project["project"]["dependencies"]
if sys.argv[2] == "test":
    wanted += project["dependency-groups"]["dev"]
print("\n".join(wanted))
PYTHON
}
