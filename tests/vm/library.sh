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

# googletest program argument...: each of its cases is one here.
googletest() {
  "$@" > /tmp/googletest 2>&1
  status=$?
  sed -n -e 's/^\[       OK \] \(.*\) ([0-9]* ms)$/PASS \1/p' -e 's/^\[  FAILED  \] \(.*\) ([0-9]* ms)$/FAIL \1/p' -e 's/^\[  SKIPPED \] \(.*\) ([0-9]* ms)$/SKIP \1/p' /tmp/googletest
  if [ "$status" != 0 ]; then
    cat /tmp/googletest
    grep -q '^\[  FAILED  \] .* ms)$' /tmp/googletest || fail "$1 ended with $status"
  fi
}
