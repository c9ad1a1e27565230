"""Where runs are performed: in processes of this machine, or on a Ray cluster."""
