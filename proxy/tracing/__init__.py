"""Distributed tracing: a span per request and stage, sent to an OpenTelemetry collector."""
