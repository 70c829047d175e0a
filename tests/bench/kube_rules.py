# SPDX-License-Identifier: Apache-2.0
"""Rules of the shape that kube-proxy writes for cluster IPs: text for iptables-restore and for `nft -f`, whole and for one changed endpoint.

As kube-proxy does with 1,000 endpoints and more, the iptables rules have no comments; and as it does for one change, KUBE-SERVICES is written whole and
only the chains of the changed Service besides."""
import base64
import hashlib
import ipaddress

ENDPOINTS = 5
PODS = "10.244.0.0/16"


def _hash(*parts):
    return base64.b32encode(hashlib.sha256("".join(parts).encode()).digest()).decode()


def cluster_ip(i):
    return str(ipaddress.IPv4Address(0x0A600100 + i))


def endpoints(i, change):
    """Addresses of the endpoints of Service i; `change` moves the first, as in proxy_driver.cc."""
    return [str(ipaddress.IPv4Address(0x0AF40001 + (60000 + change % 4000 if e == 0 else (i * ENDPOINTS + e) % 60000))) for e in range(ENDPOINTS)]


def _svc(i):
    return "KUBE-SVC-" + _hash(f"default/s{i:05}tcp")[:16]


def _sep(i, ip):
    return "KUBE-SEP-" + _hash(f"default/s{i:05}tcp", ip)[:16]


def _dispatch(i):
    return f"-A KUBE-SERVICES -m tcp -p tcp -d {cluster_ip(i)} --dport 80 -j {_svc(i)}"


def _service_rules(i, change):
    svc, seps = _svc(i), [(ip, _sep(i, ip)) for ip in endpoints(i, change)]
    chains = [f":{c} - [0:0]" for c in (svc, *(s for _, s in seps))]
    rules = [f"-A {svc} -m tcp -p tcp -d {cluster_ip(i)} --dport 80 ! -s {PODS} -j KUBE-MARK-MASQ"]
    for n, (_, sep) in enumerate(seps):
        left = len(seps) - n
        chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        rules.append(f"-A {svc}{chance} -j {sep}")
    for ip, sep in seps:
        rules += [f"-A {sep} -s {ip} -j KUBE-MARK-MASQ", f"-A {sep} -m tcp -p tcp -j DNAT --to-destination {ip}:8080"]
    return chains, rules


HEAD = ["*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-NODEPORTS - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-MARK-MASQ - [0:0]"]
FIXED = ["-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN", "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
         "-A KUBE-POSTROUTING -j MASQUERADE", "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"]
LAST = "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"


def iptables_load(services):
    chains, rules = list(HEAD), list(FIXED)
    for i in range(services):
        own, more = _service_rules(i, i)
        chains += own
        rules += [_dispatch(i), *more]
    hooks = ["-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES", "-A POSTROUTING -j KUBE-POSTROUTING"]
    return "\n".join([*chains, *rules, LAST, *hooks, "COMMIT", ""])


def iptables_change(services, i, before, after):
    chains, rules = _service_rules(i, after)
    gone = _sep(i, endpoints(i, before)[0])
    dispatch = [_dispatch(n) for n in range(services)]
    return "\n".join([*HEAD, *chains, f":{gone} - [0:0]", *FIXED, *dispatch, *rules, LAST, f"-X {gone}", "COMMIT", ""])


TABLE = "ip kube-proxy"
BASE = f"""add table {TABLE}
add chain {TABLE} nat-prerouting {{ type nat hook prerouting priority -100 ; }}
add chain {TABLE} nat-output {{ type nat hook output priority -100 ; }}
add chain {TABLE} nat-postrouting {{ type nat hook postrouting priority 100 ; }}
add chain {TABLE} services
add chain {TABLE} masquerading
add chain {TABLE} mark-for-masquerade
add map {TABLE} service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add rule {TABLE} mark-for-masquerade mark set mark or 0x4000
add rule {TABLE} masquerading mark and 0x4000 == 0 return
add rule {TABLE} masquerading mark set mark xor 0x4000
add rule {TABLE} masquerading masquerade fully-random
add rule {TABLE} services ip daddr . meta l4proto . th dport vmap @service-ips
add rule {TABLE} nat-prerouting jump services
add rule {TABLE} nat-output jump services
add rule {TABLE} nat-postrouting jump masquerading"""


def _nft_service(i):
    return f"service-{_hash(f'default/s{i:05}tcp')[:8]}-default/s{i:05}/tcp/"


def _nft_endpoint(i, ip):
    return f"endpoint-{_hash(f'default/s{i:05}tcp', ip)[:8]}-default/s{i:05}/tcp/__{ip}/8080"


def _nft_service_rules(i, change):
    service, ends = _nft_service(i), [(ip, _nft_endpoint(i, ip)) for ip in endpoints(i, change)]
    for ip, chain in ends:
        yield f"add chain {TABLE} {chain}"
        yield f"flush chain {TABLE} {chain}"
        yield f"add rule {TABLE} {chain} ip saddr {ip} jump mark-for-masquerade"
        yield f"add rule {TABLE} {chain} meta l4proto tcp dnat to {ip}:8080"
    yield f"add chain {TABLE} {service}"
    yield f"flush chain {TABLE} {service}"
    yield f"add rule {TABLE} {service} ip daddr {cluster_ip(i)} tcp dport 80 ip saddr != {PODS} jump mark-for-masquerade"
    yield f"add rule {TABLE} {service} numgen random mod {len(ends)} vmap {{ " + ", ".join(f"{n} : goto {c}" for n, (_, c) in enumerate(ends)) + " }"


def nft_load(services):
    lines = [BASE]
    for i in range(services):
        lines += _nft_service_rules(i, i)
        lines.append(f"add element {TABLE} service-ips {{ {cluster_ip(i)} . tcp . 80 : goto {_nft_service(i)} }}")
    return "\n".join([*lines, ""])


def nft_change(_, i, before, after):
    return "\n".join([*_nft_service_rules(i, after), f"delete chain {TABLE} {_nft_endpoint(i, endpoints(i, before)[0])}", ""])
