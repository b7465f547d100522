#!/bin/sh
# Takes away what pods leave on a host whose agent is stopped: mounts, the kubelet's directory, network
# interfaces, packet filter rules. Says what it took away; nothing when nothing was left.
set -eu

# The last mounted first. Only what k3s mounts: a disk of the host's own at one of its directories stays.
while read -r _ target _; do printf '%b\n' "$target"; done < /proc/self/mounts \
  | grep -E '^(/run/k3s/|/var/lib/kubelet/(pods|plugins)/|/run/netns/cni-)' | sort -r \
  | while read -r target; do
      umount -- "$target"
      echo "unmounted $target"
    done

for netns in /run/netns/cni-*; do
  [ -e "$netns" ] || continue
  rm -- "$netns"
  echo "removed $netns"
done

if [ -d /var/lib/kubelet ]; then
  if [ -n "$(ls -A /var/lib/kubelet)" ]; then
    find /var/lib/kubelet -xdev -mindepth 1 -delete
    echo "emptied /var/lib/kubelet"
  fi
  # It may be a mount point of the host's own.
  if rmdir /var/lib/kubelet 2> /dev/null; then echo "removed /var/lib/kubelet"; fi
fi

for port in /sys/class/net/cni0/brif/*; do
  [ -e "$port" ] || continue
  # Its other end went with a pod's network namespace, maybe with this one too.
  ip link delete "$(basename "$port")" 2> /dev/null || true
done
for name in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 kube-ipvs0; do
  [ -e "/sys/class/net/$name" ] || continue
  ip link delete "$name"
  echo "removed interface $name"
done

# Chains and rules of kube-proxy, the network plugins and flannel carry these words; nobody else's do.
for kind in iptables ip6tables; do
  command -v "$kind-save" > /dev/null || continue
  rules=$("$kind-save" 2> /dev/null) || continue
  if echo "$rules" | grep -qiE 'KUBE-|CNI-|flannel'; then
    echo "$rules" | grep -viE 'KUBE-|CNI-|flannel' | "$kind-restore"
    echo "removed rules of Kubernetes from $kind"
  fi
done
