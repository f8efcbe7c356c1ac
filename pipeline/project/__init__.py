"""A new project for your own images: what a source holds, which params suit it, and the files to begin with."""
