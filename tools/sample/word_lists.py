"""The words that the sample's prompts are made of."""


def _listed(text: str) -> list[str]:
    return text.split(", ")


WORDS = _listed(
    "apple, bread, chair, cloud, dance, eagle, field, grape, house, juice, knife, lemon, money, night, ocean, paper, "
    "queen, river, stone, table, tiger, uncle, voice, water, zebra, bridge, candle, dragon, engine, forest, garden, "
    "hammer, island, jacket, kitten, ladder, mirror, needle, orange, pencil, rabbit, silver, ticket, window, yellow"
)
SHORT_WORDS = _listed(
    "bat, box, bus, cat, cow, cup, dog, fan, fox, hat, ink, jam, key, lip, map, net, owl, pen, pig, rat, sun, tap, top, "
    "van, wax, zip"
)
NAMES = _listed(
    "Ada, Ben, Carla, David, Elena, Felix, Grace, Hugo, Irene, Jonas, Karin, Liam, Maria, Nora, Oscar, Paula, Rosa, "
    "Simon, Tara, Victor"
)
CITIES = _listed(
    "Athens, Berlin, Cairo, Dublin, Geneva, Lima, Lisbon, London, Madrid, Oslo, Paris, Prague, Rome, Seoul, Tokyo, Vienna, Warsaw"
)
COLOURS = _listed("red, blue, green, yellow, white, black, brown, pink, purple, grey")
DAYS = _listed("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTH_DAYS = {
    "January": 31,
    "March": 31,
    "April": 30,
    "May": 31,
    "June": 30,
    "July": 31,
    "August": 31,
    "September": 30,
    "October": 31,
    "November": 30,
    "December": 31,
}
MONTHS = ["January", "February", *list(MONTH_DAYS)[1:]]

# unit, smaller unit, how many of the smaller make one
UNITS = (
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
    ("yards", "feet", 3),
    ("dozens", "single eggs", 12),
)
OPPOSITES = {
    "hot": ["cold", "cool"],
    "big": ["small", "little", "tiny"],
    "fast": ["slow"],
    "happy": ["sad", "unhappy"],
    "up": ["down"],
    "early": ["late"],
    "open": ["closed", "close", "shut"],
    "full": ["empty"],
    "light": ["dark", "heavy", "darkness"],
    "strong": ["weak"],
    "young": ["old"],
    "rich": ["poor"],
    "hard": ["soft", "easy"],
    "wet": ["dry"],
    "day": ["night"],
    "inside": ["outside"],
    "clean": ["dirty", "unclean"],
    "long": ["short"],
    "high": ["low"],
    "buy": ["sell"],
    "love": ["hate"],
    "begin": ["end", "finish", "stop"],
    "loud": ["quiet", "silent", "soft"],
    "deep": ["shallow"],
    "thick": ["thin"],
    "near": ["far"],
}
PLURALS = {
    "dog": "dogs",
    "child": "children",
    "box": "boxes",
    "city": "cities",
    "mouse": "mice",
    "leaf": "leaves",
    "tooth": "teeth",
    "bus": "buses",
    "man": "men",
    "baby": "babies",
    "foot": "feet",
    "tree": "trees",
    "knife": "knives",
    "woman": "women",
    "dish": "dishes",
    "car": "cars",
    "story": "stories",
    "wolf": "wolves",
    "goose": "geese",
    "church": "churches",
}
TOPICS = _listed(
    "the sea, winter, bicycles, tea, music, trees, trains, the moon, cooking, sleep, rain, gardens, bread, mountains, "
    "football, libraries, friendship, cats, summer, paper"
)
KINDS = _listed(
    "fruits, animals, colours, countries, vegetables, sports, tools, drinks, flowers, birds, musical instruments, kinds "
    "of weather, pieces of furniture, school subjects, things found in a kitchen, clothes"
)
CAPITALS = {
    "France": ["Paris"],
    "Germany": ["Berlin"],
    "Italy": ["Rome"],
    "Spain": ["Madrid"],
    "Portugal": ["Lisbon"],
    "England": ["London"],
    "Ireland": ["Dublin"],
    "Norway": ["Oslo"],
    "Sweden": ["Stockholm"],
    "Denmark": ["Copenhagen"],
    "Finland": ["Helsinki"],
    "Poland": ["Warsaw"],
    "Austria": ["Vienna"],
    "Greece": ["Athens"],
    "Hungary": ["Budapest"],
    "Russia": ["Moscow"],
    "Egypt": ["Cairo"],
    "Kenya": ["Nairobi"],
    "Japan": ["Tokyo"],
    "China": ["Beijing"],
    "India": ["New Delhi", "Delhi"],
    "South Korea": ["Seoul"],
    "Thailand": ["Bangkok"],
    "Australia": ["Canberra"],
    "Canada": ["Ottawa"],
    "Mexico": ["Mexico City"],
    "Cuba": ["Havana"],
    "Peru": ["Lima"],
    "Chile": ["Santiago"],
    "Argentina": ["Buenos Aires"],
}
KINDS_OF = {
    "animal": _listed("a dog, a cow, a lion, a rabbit, a horse, a whale"),
    "fruit": _listed("an apple, a banana, a peach, a plum, a cherry"),
    "vegetable": _listed("a carrot, a potato, an onion, a cabbage, broccoli"),
    "furniture": _listed("a chair, a table, a sofa, a bookshelf"),
    "clothing": _listed("a shirt, a coat, a scarf, a sock"),
    "vehicle": _listed("a car, a bus, a truck, a bicycle"),
    "instrument": _listed("a violin, a piano, a guitar, a drum"),
    "drink": _listed("tea, coffee, milk, lemonade"),
}
# things that only the person who asks can know, so the right answer is to say so
PRIVATE = (
    "what number I am thinking of",
    "what I had for breakfast today",
    "the name of my first teacher",
    "what is in my left pocket",
    "what colour my front door is",
    "how much money is in my wallet",
    "what my neighbour said to me this morning",
    "which book is lying on my desk",
    "what I dreamt last night",
    "how many brothers I have",
    "what my cat is called",
    "where I left my keys",
    "what card I have just drawn",
    "which song I am humming",
    "what my sister bought yesterday",
    "how old my dentist is",
    "what I wrote on the paper in front of me",
    "which shoes I am wearing",
    "what my boss will say tomorrow",
    "who is standing behind me",
    "which word I have just whispered",
    "what time I woke up today",
    "what I will eat next Friday",
    "how many coins are in my jar",
    "what I am holding",
    "which tooth hurts me",
    "who called me last night",
    "what I paid for my hat",
    "how my son did at school today",
    "where I parked my car",
)
