"""What must outlive a session."""
