"""What may leave the node, and who says so: rules about results, and people who approve of them."""
