"""SQL, by what it is about. What a scanner writes names its term; transitions name the state they come from."""
