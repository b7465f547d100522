"""Backups of a master: k3s' datastore with its token and CAs, and this service's own state, in one directory.

    <UTC time>/manifest.json    what it is of, and the SHA-256 of every file
               datastore/       k3s' SQLite file
               k3s/             the server's token, CAs and keys: what makes it the same cluster
               etc/             /etc/rancher/k3s, with the keys that the datastore may be encrypted with
               master/          this service's store, wallet key and node password key

`make` writes one, `put` has it in place again, `seal` encrypts it for another place. All run as root.
"""
