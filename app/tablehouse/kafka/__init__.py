"""The Faust chassis and the Kafka clients; the only package that imports faust, mode or aiokafka.

DESIGN.md beside this file says what of Faust is used, what is replaced and why.
"""
