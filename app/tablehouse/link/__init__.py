"""Worker to worker: long-lived connections with many questions in flight, answered in any order."""
