# SPDX-License-Identifier: Apache-2.0
# What test scripts share. A case is one line: check NAME COMMAND..., or pass, fail, skip.
pass() { echo "PASS $*"; }
fail() { echo "FAIL $*"; }
skip() { echo "SKIP $*"; }

# check "name of the case" command...: passes if the command ends with 0; what it printed is shown if not.
check() {
  name=$1
  shift
  if output=$("$@" 2>&1); then
    pass "$name"
  else
    fail "$name"
    echo "$output" | head -40
  fi
}

# eventually command...: waits until the command succeeds; at most two minutes, emulation is slow.
eventually() {
  tries=0
  until "$@" > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { "$@"; return 1; }
    sleep 0.2
  done
}

# in_ns NAMESPACE command...
in_ns() {
  netns=$1
  shift
  ip netns exec "$netns" "$@"
}
