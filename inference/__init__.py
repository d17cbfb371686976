"""What a report is about, judged from its photos and words; see models/README.md for what the judgements are worth."""
