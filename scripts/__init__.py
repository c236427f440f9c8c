"""Programs for people who build, try and measure WAP. Scripts may import everything; nothing imports scripts."""
