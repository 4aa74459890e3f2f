"""What those see who look at the program from outside: reads the fields of everything else, and changes none."""
