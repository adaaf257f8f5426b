"""Looking at a file of faces: is it fit for use, and what is in it?"""
