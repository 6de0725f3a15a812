"""Code that several test files use. Test files import from here and never from each other."""
