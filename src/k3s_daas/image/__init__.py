"""The master's enclave image: a root file system of pinned inputs, and the file that an enclave starts from.

Two builds of the same inputs give the same bytes. What could differ is fixed here: which packages (a lock
with their hashes), every time, every owner, the order of files, the compression.

    lock      which Debian packages, by version and SHA-256
    apt       resolves, downloads and offers them, apart from this machine's own apt
    entries   files of a tree, from a tar or made here
    cpio      writes and reads the archive that the kernel unpacks
    eif       writes, reads and measures the enclave's file: PCR0, PCR1, PCR2
    rootfs    the tree: Debian, the daemons' environment, k3s, configuration
    build     all of it, with a record of what went in and what came out
    run       the module's options to a build

Only the control node needs this.
"""
