"""What a model is: its manifest, where its weights come from, and the errors every part shares."""
