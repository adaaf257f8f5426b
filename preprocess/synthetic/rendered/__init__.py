"""The rendered look: heads of a public-domain mesh with light, camera and all that photographs show."""
