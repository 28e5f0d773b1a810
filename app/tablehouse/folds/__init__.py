"""How source records become rows: functions of the source prefix alone, with no clock of their own."""
