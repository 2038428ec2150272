"""Datasets of a node: files that are mounted, and services that are connected or asked."""
