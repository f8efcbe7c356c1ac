"""How the stages' cost grows to 100,000 images of 224 pixels, and what that says about 1.28 million."""
