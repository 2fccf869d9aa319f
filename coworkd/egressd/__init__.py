"""coworkd-egress: the sessions' only way out, a program of its own, as a user of its own and without any privilege.

One thread and an epoll loop, a few threads that look names up, few imports. It accepts on listeners that were made in the sessions'
namespaces, decides, tells coworkd, dials, and splices.
"""
