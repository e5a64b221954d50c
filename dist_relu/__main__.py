"""`python -m dist_relu` is the program `dist-relu`."""

from dist_relu_main import main

if __name__ == "__main__":
    main()
