# Sourced by scripts/train and scripts/test: makes .venv in the project's root, once.
#
#   ready run     bigmodel-train and what it needs, every extra included
#   ready test    the test tools as well
#
# A stamp, written last, says that an installation is whole and what it was made from. With the same
# pyproject.toml and pins nothing is installed again; where they changed, .venv is brought up to date;
# without a stamp, because an installation was interrupted, .venv is made from scratch.

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
    echo "Bringing .venv up to date:" >&2
  else
    python="$(find_python)"
    echo "Setting up .venv with $("$python" --version), once:" >&2
    rm -rf "$venv"
    stage "an empty environment" "$python" -m venv "$venv"
  fi
  if [[ -f "$venv/ready-test" ]]; then what=test; fi
  rm -f "$venv"/ready-*
  # Torch first and by its exact version: a looser request might fetch another build of it. By pip, as uv
  # would not look where pip's configuration says that wheels lie.
  stage "torch" pip_install "$(grep '^torch==' "$pins")"
  stage "what else it needs" install_rest "$what"
  stage "bigmodel itself" install --no-deps --no-build-isolation --editable "$root"
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

# Modules are compiled when they are first imported: few of them ever are.
pip_install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
    --constraint "$pins" "$@"
}

uv_install() {
  (
    eval "$(uv_settings)" && "$uv" pip install --quiet --no-config --python "$venv/bin/python" \
      --index-strategy unsafe-best-match --constraint "$pins" "$@"
  )
}

install_rest() { # run or test
  installer=pip_install
  # Their values are not logged: one may hold a password, and the log is shown if something fails.
  if uv_settings >/dev/null && find_uv; then installer=uv_install; fi
  printf ', by %s' "${installer%_install}" >&3
  # shellcheck disable=SC2046 # one requirement a word
  install hatchling editables $(requirements "$1")
}

install() { # by uv, or by pip where uv cannot
  if [[ "$installer" == uv_install ]]; then
    uv_install "$@" && return
    echo " (uv failed; by pip)" >&3
    installer=pip_install
  fi
  pip_install "$@"
}

find_uv() { # one that is there, or else one of our own in .venv
  if ! uv="$(command -v uv)"; then
    uv="$venv/bin/uv"
    [[ -x "$uv" ]] || pip_install --only-binary :all: uv
  fi
}

stage() { # what, command…: runs it quietly, tells how long it took, and shows what it said where it fails
  local began=$SECONDS
  printf '  %s' "$1" >&2
  if ! "${@:2}" 3>&2 >>"$log" 2>&1; then
    printf '\n' >&2
    cat "$log" >&2
    echo "Setting up .venv failed, for the reason above. The next start tries again." >&2
    exit 1
  fi
  echo ": $((SECONDS - began)) s" >&2
}

uv_settings() { # what pip is configured with, as variables for uv; fails where uv has no such setting
  "$venv/bin/python" -m pip config list | "$venv/bin/python" -c '
import ast
import shlex
import sys

ours = {
    "index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX", "cert": "SSL_CERT_FILE", "constraint": "UV_CONSTRAINT",
    "timeout": "UV_HTTP_TIMEOUT", "default-timeout": "UV_HTTP_TIMEOUT", "retries": "UV_HTTP_RETRIES",
    "trusted-host": "UV_INSECURE_HOST", "proxy": "ALL_PROXY",
}
no_matter = {
    "disable-pip-version-check", "no-input", "progress-bar", "quiet", "verbose", "no-color", "cache-dir",
    "no-cache-dir", "no-compile", "compile", "root-user-action", "no-warn-script-location", "log",
    "break-system-packages", "require-virtualenv", "no-python-version-warning", "prefer-binary",
}
found = {}
for line in sys.stdin:
    name, _, value = line.strip().partition("=")
    section, _, key = name.rpartition(".")
    key = key.replace("_", "-")
    if section not in {"global", "install", ":env:"} or key in no_matter:
        continue
    if key not in ours:
        sys.exit(f"uv has nothing like {key}")
    rank = ["global", "install", ":env:"].index(section)
    found.setdefault(ours[key], []).append((rank, ast.literal_eval(value)))
for name, values in found.items():
    value = max(values)[1]
    separator = "," if name == "UV_FIND_LINKS" else " "
    value = separator.join(value.split())
    print(f"export {name}={shlex.quote(value)}")
    if name == "ALL_PROXY":
        print(f"export HTTP_PROXY={shlex.quote(value)} HTTPS_PROXY={shlex.quote(value)}")
'
}

requirements() { # run or test: what pyproject.toml asks for, one a line
  "$venv/bin/python" - "$root/pyproject.toml" "$1" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
wanted = project["project"]["dependencies"]
extras = project["project"]["optional-dependencies"]
for extra in extras["all"][0].partition("[")[2].strip("]").split(","):
    wanted += extras[extra]
if sys.argv[2] == "test":
    wanted += project["dependency-groups"]["dev"]
print("\n".join(wanted))
PYTHON
}
