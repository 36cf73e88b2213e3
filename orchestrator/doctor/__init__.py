"""What usually breaks, looked at on every host before it breaks a run; each finding with its fix."""
