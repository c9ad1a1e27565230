"""Many runs: what they are, how they are run, and their records."""
