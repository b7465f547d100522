#!/bin/sh
# STAND-IN for k3s' install.sh, for machines that can't download it: what `make bench-cluster` needs of it, with
# the binary in place. It writes the unit, its environment file, kubectl's links, and the scripts that stop and
# uninstall; it reads the same variables, and knows no download, no SELinux and no OpenRC. It does less work than
# the real one. K3S_STANDIN_ROOT moves every path below another directory, for tests.
set -eu

root=${K3S_STANDIN_ROOT:-}
bin=$root/usr/local/bin
systemd=$root${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}

if [ "${INSTALL_K3S_SKIP_DOWNLOAD:-}" != true ] || [ ! -x "$bin/k3s" ]; then
  echo "k3s-install.sh STAND-IN: wanted INSTALL_K3S_SKIP_DOWNLOAD=true and a k3s in $bin" >&2
  exit 1
fi

# Split into words, as the real one does.
eval set -- "${INSTALL_K3S_EXEC:-}"
case "${1:-}" in
  agent) command=agent unit=k3s-agent; shift ;;
  server) command=server unit=k3s; shift ;;
  *) command=server unit=k3s ;;
esac

for name in kubectl crictl ctr; do
  [ -e "$bin/$name" ] || ln -s k3s "$bin/$name"
done
cat > "$bin/k3s-killall.sh" << END
#!/bin/sh
systemctl stop k3s.service k3s-agent.service
END
cat > "$bin/$unit-uninstall.sh" << END
#!/bin/sh
$bin/k3s-killall.sh
systemctl disable $unit
rm -rf $systemd/$unit.service $systemd/$unit.service.env $root/etc/rancher/k3s $root/var/lib/rancher/k3s $bin/k3s
END
chmod 755 "$bin/k3s-killall.sh" "$bin/$unit-uninstall.sh"

(umask 077; env | grep -E '^K3S_' > "$systemd/$unit.service.env" || true)
cat > "$systemd/$unit.service" << END
[Unit]
Description=Lightweight Kubernetes, by the STAND-IN of k3s' install script
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
ExecStart=$bin/k3s $command $*

[Install]
WantedBy=multi-user.target
END

[ "${INSTALL_K3S_SKIP_ENABLE:-}" = true ] && exit 0
systemctl enable "$unit"
systemctl daemon-reload
[ "${INSTALL_K3S_SKIP_START:-}" = true ] || systemctl restart "$unit"
