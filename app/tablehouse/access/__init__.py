"""Who may do what: rights, and the policy that is asked for them. Knows neither HTTP nor Kafka."""
