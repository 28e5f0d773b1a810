"""How source records become rows: functions that depend only on the records so far, without a clock."""
