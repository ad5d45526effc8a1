"""Full-waveform inversion, shot gathers to velocity: from a config to a directory of results (`job`)."""
