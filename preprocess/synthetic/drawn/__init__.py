"""The drawn look: procedural faces, sculpted and painted without any material from outside."""
