#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# overlayd's back end "wireguard" on a kernel that has it: three nodes with a pod each, joined by a bridge, both address families. The oracle is wg(8).
# modules: wireguard vxlan veth bridge nf_tables nft_chain_nat nft_masq nft_ct nft_fib_inet nf_conntrack_netlink
# commands: ping wg nft
# programs: cni-plugin/overlayd/hawser-overlayd
. /library.sh

start() {
  node=$1
  shift
  ip netns exec "n$node" hawser-overlayd --subnets-file /run/subnets.json --node-name "node-$node" --iface eth0 --cluster-cidr 10.244.0.0/16,fd00::/16 \
    --run-dir "/run/n$node" --healthz-bind 127.0.0.1:8285 "$@" >> "/run/log-$node" 2>&1 &
  echo $! > "/run/pid-$node"
}
stop() {
  kill "-${2:-TERM}" "$(cat "/run/pid-$1")"
  wait "$(cat "/run/pid-$1")"
  :
}
# The leases of these nodes, with the public keys that belong to their key files.
leases() {
  list=
  for n in "$@"; do
    list="$list${list:+,}{\"name\":\"node-$n\",\"podCIDRs\":[\"10.244.$n.0/24\",\"fd00:$n::/64\"],\"publicIP\":\"192.0.2.1$n\",\"publicIPv6\":\"2001:db8::1$n\",
      \"publicKey\":\"$(wg pubkey < "/run/n$n/wgkey")\"}"
  done
  echo "{\"nodes\":[$list]}" > /run/subnets.new
  mv /run/subnets.new /run/subnets.json
}
ready() { in_ns "n$1" wget -q -O - http://127.0.0.1:8285/readyz; }
reaches() { in_ns "p$1" ping -c 1 -W 2 "10.244.$2.5" && in_ns "p$1" ping -c 1 -W 2 "fd00:$2::5"; }
peers() { in_ns "n$1" wg show "$2" peers | wc -l; }
has_peers() { [ "$(peers "$1" flannel-wg)" = "$2" ]; }
knows() { in_ns "n$1" wg show flannel-wg peers | grep -qF "$2"; }
gone() { ! in_ns "n$1" ip link show "$2" 2> /dev/null; }
all_reach() {
  eventually reaches 1 2 && eventually reaches 2 3 && eventually reaches 3 1
}

ip link add br0 type bridge
ip link set br0 up
for n in 1 2 3; do
  ip netns add "n$n"
  ip netns add "p$n"
  in_ns "n$n" ip link set lo up
  ip link add "f$n" type veth peer name eth0 netns "n$n"
  ip link set "f$n" master br0 up
  in_ns "n$n" ip addr add "192.0.2.1$n/24" dev eth0
  in_ns "n$n" ip addr add "2001:db8::1$n/64" dev eth0 nodad
  in_ns "n$n" ip link set eth0 up
  # A pod, joined as the CNI plugin does it.
  in_ns "n$n" ip link add pod type veth peer name eth0 netns "p$n"
  in_ns "n$n" ip addr add 169.254.1.1/32 dev pod
  in_ns "n$n" ip addr add fe80::1/64 dev pod nodad
  in_ns "n$n" ip link set pod up
  in_ns "p$n" ip link set eth0 up mtu 1420
  in_ns "p$n" ip addr add "10.244.$n.5/32" dev eth0
  in_ns "p$n" ip addr add "fd00:$n::5/128" dev eth0 nodad
  in_ns "p$n" ip route add 169.254.1.1 dev eth0
  in_ns "p$n" ip route add default via 169.254.1.1
  in_ns "p$n" ip -6 route add default via fe80::1 dev eth0
  in_ns "n$n" ip route add "10.244.$n.5/32" dev pod
  in_ns "n$n" ip -6 route add "fd00:$n::5/128" dev pod
  mkdir -p "/run/n$n"
  wg genkey > "/run/n$n/wgkey"
done
wg genpsk > /run/psk
options="--backend wireguard --wireguard-psk-file /run/psk --wireguard-keepalive 25"
leases 1 2 3
for n in 1 2 3; do start "$n" $options; done

check "daemons become ready" sh -c '. /library.sh; ready() { in_ns "n$1" wget -q -O - http://127.0.0.1:8285/readyz; }; for n in 1 2 3; do eventually ready $n || exit; done'
check "pods reach each other in both families" all_reach
check "what they sent went through the tunnels" sh -c '[ -z "$(ip netns exec n1 wg show all latest-handshakes | grep -w 0$)" ] && [ "$(ip netns exec n1 wg show all peers | wc -l)" = 4 ]'
check "the tunnel's port, preshared key and keepalive are as ordered" sh -c 'wg() { ip netns exec n1 wg "$@"; }
  [ "$(wg show flannel-wg listen-port)" = 51820 ] && [ "$(wg show flannel-wg-v6 listen-port)" = 51821 ] && wg show flannel-wg preshared-keys | grep -qF "$(cat /run/psk)" &&
  wg show flannel-wg persistent-keepalive | grep -qw 25'
check "a packet of exactly the MTU passes" in_ns p1 ping -c 1 -W 5 -M do -s 1392 10.244.2.5
check "one byte more does not" sh -c '! ip netns exec p1 ping -c 1 -W 2 -M do -s 1393 10.244.2.5'
check "the device tells the MTU" sh -c 'ip netns exec n1 ip link show flannel-wg | grep -q "mtu 1420"'
check "the log has no secret" sh -c '! grep -qF -e "$(cat /run/psk)" -e "$(cat /run/n1/wgkey)" /run/log-*'

# Handshake times, ends and links as they stand; a session that was lost would show a new handshake.
standing() {
  in_ns n1 wg show all latest-handshakes
  in_ns n1 wg show all endpoints
  in_ns n1 ip -o link show flannel-wg | cut -d: -f1
  in_ns n1 ip route
  in_ns n1 ip -6 route
}
before=$(standing)
stop 1 KILL
check "packets pass while the daemon is dead" reaches 1 2
: > /run/log-1
start 1 $options
check "the daemon comes back" eventually ready 1
check "it adopted device, peers and sessions" sh -c '[ "$1" = "$2" ] || { echo "$1"; echo "--- after"; echo "$2"; exit 1; }' - "$before" "$(standing)"
check "it wrote nothing" sh -c '! grep -e " start: " -e "repaired: " /run/log-1'
check "packets pass after it" reaches 1 2

leases 1 2
check "a peer that goes is removed" eventually has_peers 1 1
check "with its route" sh -c '! ip netns exec n1 ip route | grep 10.244.3'
check "and is not reached any more" sh -c '! ip netns exec p1 ping -c 1 -W 2 10.244.3.5'
leases 1 2 3
check "it comes back" eventually reaches 1 3

old=$(wg pubkey < /run/n2/wgkey)
stop 2
wg genkey > /run/n2/wgkey
leases 1 2 3
start 2 $options
check "a node's new key is told to its peers" eventually knows 1 "$(wg pubkey < /run/n2/wgkey)"
check "the old one is forgotten" sh -c '! ip netns exec n1 wg show flannel-wg peers | grep -F "$1"' - "$old"
check "packets pass with the new key" all_reach

in_ns n1 wg set flannel-wg peer "$(wg pubkey < /run/n2/wgkey)" remove
check "a peer that was removed by hand is put back" eventually knows 1 "$(wg pubkey < /run/n2/wgkey)"
in_ns n1 ip link del flannel-wg
check "a device that was deleted is made again" eventually reaches 1 2
check "that is counted" sh -c 'ip netns exec n1 wget -q -O - http://127.0.0.1:8285/metrics | grep "hawser_overlay_repairs_total{kind=\"peer\"} [1-9]"'

for n in 1 2 3; do stop "$n"; start "$n" $options --wireguard-mode auto; done
check "one device carries both families" sh -c '. /library.sh; one() { [ "$(ip netns exec n1 wg show all allowed-ips | grep -c "10.244.*fd00")" = 2 ]; }; eventually one'
check "the second device is gone" eventually gone 1 flannel-wg-v6
check "pods reach each other over it" all_reach

for n in 1 2 3; do stop "$n"; start "$n" --backend vxlan; done
check "VXLAN takes over" sh -c '. /library.sh; there() { ip netns exec n$1 ip link show flannel.1; }; for n in 1 2 3; do eventually there $n || exit; done'
check "without the encrypted device" eventually gone 1 flannel-wg
check "pods reach each other over VXLAN" all_reach
stop 1
in_ns n1 hawser-overlayd --cleanup --node-name node-1 --cluster-cidr 10.244.0.0/16 --run-dir /run/n1 >> /run/log-1 2>&1
check "--cleanup takes the key along" test ! -e /run/n1/wgkey
for n in 1 2 3; do
  echo "--- log of node-$n"
  tail -40 "/run/log-$n"
done
