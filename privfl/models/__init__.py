"""The models of the literature, and room for anybody's own."""
