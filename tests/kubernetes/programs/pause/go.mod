module tablehouse.invalid/pause

go 1.24.0
