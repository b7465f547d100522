"""`k3s-daas doctor`: what is wrong with this host, each finding with its cause and what to do.

`gather` looks (through `Probes`, the only part that touches the system), `checks` judge what was seen and
touch nothing, `command` prints. Nothing is changed, no transaction is sent, and no secret leaves the host.
"""
