"""The Faust application and the Kafka clients; the only package that imports faust, mode or aiokafka.

DESIGN.md in this folder describes which parts of Faust are used, which are replaced, and why.
"""
