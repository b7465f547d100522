#!/bin/sh
# STAND-IN for k3s' install.sh: a test double for machines that can't download it. It does what `make bench-cluster`
# needs of it, with the binary in place: the unit, its environment file, links, k3s-killall.sh and the uninstaller.
# It reads the same variables, knows no download, no SELinux and no OpenRC, and does less work than the real one.
set -eu

eval set -- "${INSTALL_K3S_EXEC:-}"
case "${1:-}" in
  agent) unit=k3s-agent; shift ;;
  *) unit=k3s ;;
esac
command=server
[ "$unit" = k3s ] || command=agent
systemd=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}

if [ "${INSTALL_K3S_SKIP_DOWNLOAD:-}" != true ] || [ ! -x /usr/local/bin/k3s ]; then
  echo "k3s-install.sh STAND-IN: wanted INSTALL_K3S_SKIP_DOWNLOAD=true and a k3s in /usr/local/bin" >&2
  exit 1
fi

for name in kubectl crictl ctr; do
  [ -e "/usr/local/bin/$name" ] || ln -s k3s "/usr/local/bin/$name"
done
cat > /usr/local/bin/k3s-killall.sh << END
#!/bin/sh
systemctl stop k3s.service k3s-agent.service
END
cat > "/usr/local/bin/$unit-uninstall.sh" << END
#!/bin/sh
/usr/local/bin/k3s-killall.sh
systemctl disable $unit
rm -rf $systemd/$unit.service $systemd/$unit.service.env /etc/rancher/k3s /var/lib/rancher/k3s /usr/local/bin/k3s
END
chmod 755 /usr/local/bin/k3s-killall.sh "/usr/local/bin/$unit-uninstall.sh"

(umask 077; env | grep -E '^(K3S|CONTAINERD|KINE)_' > "$systemd/$unit.service.env" || true)
cat > "$systemd/$unit.service" << END
[Unit]
Description=Lightweight Kubernetes, STAND-IN
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
EnvironmentFile=-$systemd/$unit.service.env
KillMode=process
Delegate=yes
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStart=/usr/local/bin/k3s $command $*

[Install]
WantedBy=multi-user.target
END

[ "${INSTALL_K3S_SKIP_ENABLE:-}" = true ] && exit 0
systemctl enable "$unit"
systemctl daemon-reload
[ "${INSTALL_K3S_SKIP_START:-}" = true ] || systemctl restart "$unit"
