"""Throw-away Debian 12 hosts with a real systemd, in systemd-nspawn.

    python molecule/resources/testhosts --fleet demo --subnet 10.123.1.0/24 --state-dir .state/demo \\
        up master=10.123.1.11 worker-1=10.123.1.12

A *fleet* is a bridge with NAT and some hosts on it. Its name decides every other name, so that fleets live
side by side and each finds its own again, whatever happened to the process that made it:

    bridge br-FLEET, machines FLEET-N and interfaces vb-FLEET-N (N: the address's place in the subnet),
    cgroups testhosts/FLEET/FLEET-N in every hierarchy, overlay mounts whose source is testhosts:FLEET,
    iptables rules with the comment testhosts:FLEET.

Commands: `image` makes the root image of all hosts (once; mmdebstrap), `up` makes hosts, `down` removes all
of the fleet, `sweep` removes what a killed run left, `status` prints JSON, `exec` runs a command in a host,
`logs` saves journals and consoles, `packages` prints the Debian packages this machine needs.

`up` and `down` may be killed at any point and run again. No process id is ever stored: what belongs to a
host is what is in its cgroups. A host is a copy-on-write layer over the image and is made anew when its
last start did not finish or its systemd-nspawn died; a host that runs is left alone.

What the state directory holds: `ssh_config` and `known_hosts` (use `ssh -F`), `id_ed25519` (0600), `hosts/`
(0700: the hosts' disks, consoles and what they were made of). What the machine holds beyond one fleet is in
/run/testhosts: locks, which checkout a fleet belongs to, and the values of the sysctls that were changed.

Needs root; systemd need not be PID 1 of the machine. Tried on machines with hybrid cgroups; what pure cgroup
v2 needs is there, but has not been tried.
"""
