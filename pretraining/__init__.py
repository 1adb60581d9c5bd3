"""How the built-in base model is made: pictures drawn by program, four small networks, one diffusers folder."""
