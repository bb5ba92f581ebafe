"""What a person is shown of a study: verdicts, in words."""
