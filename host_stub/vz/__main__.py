"""`python -m host_stub.vz --control FD`: the process that owns VZ's objects. Started by `backend`, never by hand."""

from host_stub.vz.process import main

if __name__ == "__main__":
    main()
