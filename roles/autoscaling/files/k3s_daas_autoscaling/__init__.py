"""Between EC2 Auto Scaling and the playbooks: a worker that AWS launches joins, one that goes leaves first.

Auto Scaling only changes instances. Its lifecycle hooks hold each one until this says to go on; which ones
are held is asked of AWS each time, so nothing is lost when this is killed, and nothing has to be delivered.
"""
