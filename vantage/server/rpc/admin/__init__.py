"""Transport of the admin services: one file each."""
